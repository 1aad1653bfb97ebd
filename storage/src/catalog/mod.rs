//! What is mounted, and the machine's own constants: small records that survive a restart.

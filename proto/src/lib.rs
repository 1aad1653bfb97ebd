//! The wire contract of larqld: generated messages, clients and servers of `larql.v1`.
//!
//! There is no logic here. The meaning of each message is written in the `.proto` files beside this
//! crate; the daemon turns wire types into its own in `larqld/src/server/convert.rs`, the driver in
//! `larql-client/src/wire.rs`, and nothing else sees them.

/// Protocol version 1.
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod v1 {
    tonic::include_proto!("larql.v1");
}

/// The oldest protocol version that this build speaks.
pub const VERSION_MIN: u32 = 1;
/// The newest protocol version that this build speaks.
pub const VERSION_MAX: u32 = 1;

/// Bytes that one message from a client to the daemon may have.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Bytes that one message from the daemon to a client may have.
pub const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// The compiled descriptors of every `.proto` file, for the gRPC reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

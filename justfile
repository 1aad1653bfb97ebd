# What a person types. The logic is in xtask.

# Format, lint, tidy.
check:
    cargo fmt --all
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo xtask tidy

# Every test.
test *filter:
    cargo xtask test {{filter}}

# The tour on the bundled model.
demo *args:
    cargo xtask demo {{args}}

# Measure this machine.
bench *args:
    cargo xtask bench {{args}}

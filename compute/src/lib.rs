//! The arithmetic of larqld: slices in, slices out.
//!
//! What a transformer's weights mean stands here: how their bytes become numbers ([`quant`]), the
//! inner loops ([`kernels`]) and the threads that run them ([`cpu`]), what a model family is and
//! how it is run ([`model`]), how a token is chosen ([`sample`]), what is learned from a model's own
//! numbers ([`learn`]), how what it knows is edited ([`edit`]), and the products that turn weights into rows of a database ([`browse`]).
//!
//! Promises: no file is opened, no socket, clock or environment decides a result (one variable,
//! `LARQL_ISA`, can forbid instruction sets); what comes from outside is checked before memory is
//! taken; every long operation can be cancelled between two tiles.
//!
//! Elsewhere: bytes on disk (`larql-storage`), statements and plans (`larql-planner`), and who
//! calls what when (`larqld`).

#[cfg(target_endian = "big")]
compile_error!(
    "weights are little-endian and are used in place; big-endian machines are not supported"
);

pub mod browse;
pub mod cpu;
pub mod edit;
pub mod kernels;
pub mod learn;
pub mod model;
pub mod quant;
pub mod sample;

//! The quantised formats against reference values, against themselves, and in every product.
//!
//! `goldens` compares with blocks that other implementations wrote and read; `damage` feeds every
//! decoder random bytes; `products` runs every kernel over every format.

mod damage;
mod goldens;
mod products;

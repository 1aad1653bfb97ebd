//! The quantised formats against reference values, against themselves, and in every product.
//!
//! `goldens` compares with blocks that other implementations wrote and read, `ancestor` with what
//! the ancestor wrote; `damage` feeds every decoder random bytes; `products` runs every kernel over
//! every format; `quality` compares losses.

mod ancestor;
mod damage;
mod goldens;
mod products;
mod quality;

//! The quantised formats against reference values, against themselves, and in every product.
//!
//! `goldens` compares with blocks that other implementations wrote and read; `damage` feeds every
//! decoder random bytes; `products` runs every kernel over every format; `quality` compares losses.

mod damage;
mod goldens;
mod products;
mod quality;

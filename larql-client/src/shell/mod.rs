//! stub
pub mod split;

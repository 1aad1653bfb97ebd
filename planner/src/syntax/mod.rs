//! LQL text to AST and back.
//!
//! [`lexer`] cuts text into lexemes with byte spans, [`parser`] reads statements from them with nom,
//! [`mod@print`] writes canonical LQL, and parsing what was printed gives the same AST. Everything is
//! bounded: script bytes, lexemes and nesting; no input panics or overflows the stack.
//!
//! Keywords are not reserved: where a name is expected any word will do. The exceptions are `NOT`,
//! `NULL`, `TRUE` and `FALSE`, which keep their meaning inside expressions.

pub mod ast;
pub mod error;
pub mod keyword;
pub mod lexer;
pub mod parser;
pub mod print;
pub mod span;

pub use ast::Statement;
pub use error::SyntaxError;
pub use parser::{SpannedStatement, parse_script, parse_statement};
pub use span::{Span, Spanned};

//! The live page: what the service does now, for who has just started it and for operators.
//!
//! The page is made of fixed files; everything that it shows comes from `/live`. See
//! docs/decisions/0024-live-page.md.

pub(crate) mod endpoint;
pub(crate) mod page;
pub(crate) mod state;
mod surveyed;
pub(crate) mod tap;
pub(crate) mod view;

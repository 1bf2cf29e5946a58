//! From records to committed rows.
//!
//! A [`lane`] gathers records into a [`batch`], stores it in one [`transaction`], and reports
//! what became of each row. [`isolate`] finds the rows that Postgres refuses, and [`decision`]
//! says what the [`ledger`]'s row means for a batch.

pub(crate) mod gather;

pub(crate) mod batch;
pub(crate) mod decision;
pub(crate) mod error;
pub(crate) mod isolate;
pub(crate) mod lane;
pub(crate) mod leased;
pub(crate) mod leases;
pub(crate) mod ledger;
pub(crate) mod opening;
pub(crate) mod predecessor;
pub(crate) mod quarantine;
pub(crate) mod statements;
pub(crate) mod transaction;

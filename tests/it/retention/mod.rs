//! Promise: what is older than it is kept goes, a partition at a time, and the accounts balance.

mod commands;
mod days;
mod intake;
mod own;
mod partitions;
mod wild;
mod words;

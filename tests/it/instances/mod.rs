//! Promise: any number of instances share one PostgreSQL, also while one of them is gone, frozen or
//! cut off, and what a dead one has accepted is stored from its disk.

mod balancers;
mod faults;
mod replay;
mod shared;
mod upgrade;
mod words;

//! The spool as a whole, on a disk that can be made to fail.

mod caps;
mod crash;
mod damage;
mod directory;
mod lanes;
mod model;
mod rig;

//! Stories: the whole controller against a small Kubernetes in memory, on a clock that jumps.

mod world;
mod traffic;
mod visitor;

mod naps;
mod sources;
mod queries;
mod wishes;
mod mistakes;
mod eager;
mod wakes;
mod returns;
mod unsubstituted;
mod managed;
mod pieces;
mod broken;
mod owners;
mod zeros;
mod surroundings;
mod leads;
mod restarts;
mod by_hand;
mod chaos;
mod rights;
mod budget;
mod error_path;

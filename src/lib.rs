pub mod object;
pub mod tree;

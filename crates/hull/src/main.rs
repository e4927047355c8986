//! Chooses the face of the binary before any thread or async runtime starts.
fn main() {}

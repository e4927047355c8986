//! Greets with a number that a dependency writes.

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    println!("{} {name}", itoa::Buffer::new().format(name.len()));
}

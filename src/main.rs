//! The `mementofs` program.

fn main() {
    std::process::exit(mementofs::cli::main());
}

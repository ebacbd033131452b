//! Hands the arguments to [`weft::cli`] and sets the exit code.

fn main() -> std::process::ExitCode {
    weft::cli::main()
}

//! The `tasuki` command.

fn main() -> std::process::ExitCode {
    tasuki::main()
}

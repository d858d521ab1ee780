//! The program `imago`.

fn main() -> std::process::ExitCode {
    imago_experiments::Program::default().main()
}

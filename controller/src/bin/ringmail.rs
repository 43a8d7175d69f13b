//! `ringmail`: what people ask a mesh, and do to files. The image has `ringmail-controller` under that name instead.

use std::process::ExitCode;

use ringmail_controller::cli;

fn main() -> ExitCode {
    cli::main()
}

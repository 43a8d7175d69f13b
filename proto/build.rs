//! Compiles the contract without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(
        [
            "ringmail/v1/certificate.proto",
            "ringmail/v1/discovery.proto",
            "ringmail/v1/lease.proto",
            "grpc/health/v1/health.proto",
            "envoy/service/auth/v3/authorization.proto",
            "opentelemetry/proto/collector/logs/v1/logs_service.proto",
            "opentelemetry/proto/collector/trace/v1/trace_service.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}

//! Generates the bindings from `proto/`, in pure Rust: no protoc on the build machine.
use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    if env::var_os("CARGO_FEATURE_CRI_MESSAGES").is_some() {
        cri(&out, env::var_os("CARGO_FEATURE_CRI").is_some())?;
    }
    for service in ["agent", "shim"] {
        if env::var_os(format!("CARGO_FEATURE_{}", service.to_uppercase())).is_some() {
            ttrpc(&out, service)?;
        }
    }
    Ok(())
}

fn cri(out: &Path, services: bool) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["proto/cri/runtime.v1.proto"], ["proto/cri"])?;
    tonic_prost_build::configure()
        .out_dir(out)
        .build_server(services)
        .build_client(services)
        // An RPC that a server does not implement answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        // What a verbose status shows.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}

fn ttrpc(out: &Path, service: &str) -> Result<(), Box<dyn Error>> {
    let dir = out.join(service);
    fs::create_dir_all(&dir)?;
    ttrpc_codegen::Codegen::new()
        .out_dir(&dir)
        .input(format!("proto/{service}/{service}.proto"))
        .include(format!("proto/{service}"))
        .rust_protobuf()
        .customize(ttrpc_codegen::Customize { async_all: true, ..Default::default() })
        .rust_protobuf_customize(
            ttrpc_codegen::ProtobufCustomize::default().gen_mod_rs(false).generate_accessors(false),
        )
        .run()?;
    fs::write(dir.join("mod.rs"), format!("pub mod {service};\npub mod {service}_ttrpc;\n"))?;
    Ok(())
}

//! `images`: what the frontend has pulled.

use std::process::ExitCode;

use a3s_box_proto::cri::{Image, ListImagesRequest};

use super::{
    Configured, Failure,
    client::{Client, plain},
};

/// Digits of an id that are shown.
const SHORT_ID: usize = 13;

/// Prints a table.
pub fn images(configured: &Configured) -> Result<ExitCode, Failure> {
    let (_, config) = configured.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let images = runtime.block_on(async {
        let mut client = Client::connect(&config).await?;
        let answer = client.images.list_images(ListImagesRequest::default()).await;
        Ok::<_, Failure>(answer.map_err(|status| plain(&status))?.into_inner().images)
    })?;
    println!("{:<60} {:<14} {:>10}", "IMAGE", "ID", "SIZE");
    for image in &images {
        for name in names(image) {
            println!("{name:<60} {:<14} {:>10}", short(&image.id), megabytes(image.size));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn names(image: &Image) -> Vec<&str> {
    let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
    if names.is_empty() { vec!["<none>"] } else { names.iter().map(String::as_str).collect() }
}

fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..SHORT_ID).unwrap_or(digits)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_sizes_are_short() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789abc");
        assert_eq!(short("x"), "x");
        assert_eq!(megabytes(4_261_550), "4.2 MB");
    }
}

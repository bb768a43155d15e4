//! `images`: what the frontend has pulled, what uses what, and whether it is still whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    process::ExitCode,
};

use a3s_box_image::Verified;
use a3s_box_proto::cri::{
    ContainerStatusRequest, Image, ImageSpec, ImageStatusRequest, ListContainersRequest, ListImagesRequest,
};
use clap::Args;
use serde::Deserialize;

use super::{
    Configured, Failure,
    client::{Client, plain},
};

/// Digits of an id that are shown.
const SHORT_ID: usize = 13;
/// Unit of a file's block count, whatever its file system.
const BLOCK: u64 = 512;

/// What to show.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Show each layer's file with its size on disk and the images that have it.
    #[arg(long, conflicts_with = "verify")]
    layers: bool,
    /// Compute all digests in the image store again, name what is damaged, and fail if anything is. Nothing is
    /// changed, and the frontend may run meanwhile or not.
    #[arg(long)]
    verify: bool,
}

/// Prints a table, or what is damaged.
pub fn images(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (_, config) = arguments.configured.load()?;
    if arguments.verify {
        return Ok(report(&a3s_box_image::verify(&config.root_dir.join("images"))?));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&config).await?;
        let images = client.images.list_images(ListImagesRequest::default()).await;
        let images = images.map_err(|status| plain(&status))?.into_inner().images;
        if arguments.layers {
            return show_layers(&layers(&mut client, &images).await?);
        }
        show_images(&images, &users(&mut client).await?);
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What uses images.
struct User {
    container: String,
    /// Ids of its own image and of those that it has as volumes.
    images: BTreeSet<String>,
}

async fn users(client: &mut Client) -> Result<Vec<User>, Failure> {
    let containers = client.runtime.list_containers(ListContainersRequest::default()).await;
    let mut users = Vec::new();
    for container in containers.map_err(|status| plain(&status))?.into_inner().containers {
        let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
        let mounts = match client.runtime.container_status(request).await {
            Ok(answer) => answer.into_inner().status.unwrap_or_default().mounts,
            // Removed meanwhile.
            Err(status) if status.code() == tonic::Code::NotFound => continue,
            Err(status) => return Err(plain(&status).into()),
        };
        let volumes = mounts.into_iter().filter_map(|mount| mount.image).map(|image| image.image_ref);
        let images = volumes.chain([container.image_id]).filter(|id| !id.is_empty()).collect();
        users.push(User { container: container.id, images });
    }
    Ok(users)
}

fn show_images(images: &[Image], users: &[User]) {
    println!("{:<60} {:<14} {:>10}  USED BY", "IMAGE", "ID", "SIZE");
    for (name, id, size, users) in rows(images, users) {
        println!("{name:<60} {:<14} {size:>10}  {users}", short(id));
    }
}

/// Name, id, size and users: an image under each of its names, and those that have lost theirs while in use.
fn rows<'a>(images: &'a [Image], users: &'a [User]) -> Vec<(&'a str, &'a str, String, String)> {
    let mut users_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for user in users {
        for id in &user.images {
            users_of.entry(id).or_default().push(short(&user.container));
        }
    }
    let mut rows = Vec::new();
    for image in images {
        let mut used_by = users_of.remove(image.id.as_str()).unwrap_or_default();
        if image.pinned {
            used_by.push("(pinned)");
        }
        for name in names(image) {
            rows.push((name, image.id.as_str(), megabytes(image.size), used_by.join(" ")));
        }
    }
    for (id, used_by) in users_of {
        rows.push(("<removed>", id, "-".into(), used_by.join(" ")));
    }
    rows
}

/// The part of ImageStatus's verbose answer that is ours.
#[derive(Deserialize)]
struct Info {
    layers: Vec<String>,
}

/// The images of each layer's file.
async fn layers(
    client: &mut Client,
    images: &[Image],
) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for image in images {
        let spec = ImageSpec { image: image.id.clone(), ..ImageSpec::default() };
        let request = ImageStatusRequest { image: Some(spec), verbose: true };
        let answer = client.images.image_status(request).await.map_err(|status| plain(&status))?;
        // An image that was removed meanwhile has no layers.
        let Some(text) = answer.into_inner().info.remove("info") else { continue };
        for layer in serde_json::from_str::<Info>(&text)?.layers {
            found.entry(layer).or_default().extend(names(image).into_iter().map(str::to_owned));
        }
    }
    Ok(found)
}

fn show_layers(layers: &BTreeMap<String, BTreeSet<String>>) -> Result<(), Failure> {
    println!("{:>10}  LAYER", "ON DISK");
    for (file, images) in layers {
        let bytes = std::fs::metadata(file).map_err(|error| format!("{file}: {error}"))?.blocks() * BLOCK;
        println!("{:>10}  {file}", megabytes(bytes));
        for image in images {
            println!("{:>10}    of {image}", "");
        }
    }
    Ok(())
}

fn report(verified: &Verified) -> ExitCode {
    let Verified { images, files, bytes, damaged } = verified;
    println!("{images} images: {files} files with {} are what they were", megabytes(*bytes));
    for damage in damaged {
        let images: Vec<&str> = damage.images.iter().map(String::as_str).collect();
        let of = if images.is_empty() { "all images".to_owned() } else { images.join(", ") };
        println!("DAMAGED {}: {} (of {of})", damage.path.display(), damage.reason);
    }
    if damaged.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "To repair, remove all images named here, and the containers that use them, and pull them again."
    );
    ExitCode::FAILURE
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

    #[test]
    fn an_image_is_shown_with_what_uses_it_also_when_it_has_lost_its_name() {
        let image = |id: &str, tags: &[&str], pinned| Image {
            id: id.into(),
            repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            pinned,
            ..Image::default()
        };
        let user = |container: &str, images: &[&str]| User {
            container: container.into(),
            images: images.iter().map(|id| (*id).to_owned()).collect(),
        };
        let images = [image("sha256:1", &["a:1", "a:2"], false), image("sha256:2", &[], true)];
        let users =
            [user("c1", &["sha256:1"]), user("c2", &["sha256:1", "sha256:2"]), user("c3", &["sha256:3"])];
        let rows = rows(&images, &users);
        let shown: Vec<_> = rows.iter().map(|(name, id, _, users)| (*name, *id, users.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("a:1", "sha256:1", "c1 c2"),
                ("a:2", "sha256:1", "c1 c2"),
                ("<none>", "sha256:2", "c2 (pinned)"),
                ("<removed>", "sha256:3", "c3"),
            ]
        );
    }
}

//! ImageService. What is not here answers UNIMPLEMENTED.

use std::{collections::HashMap, sync::Arc};

use a3s_box_image::Credentials;
use a3s_box_proto::cri;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{convert::image, pages::pages};
use crate::{clock::unix_nanos, error::Error, node::Node, stats::filesystem};

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Debug)]
pub struct Images(pub Arc<Node>);

#[tonic::async_trait]
impl cri::image_service_server::ImageService for Images {
    async fn list_images(&self, request: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        Ok(Response::new(cri::ListImagesResponse { images: self.list(request.into_inner().filter)? }))
    }

    async fn stream_images(
        &self,
        request: Request<cri::StreamImagesRequest>,
    ) -> Answer<BoxStream<cri::StreamImagesResponse>> {
        let listed = self.list(request.into_inner().filter)?;
        Ok(Response::new(pages(listed, |images| cri::StreamImagesResponse { images })))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Answer<cri::ImageStatusResponse> {
        let request = request.into_inner();
        let name = named(request.image)?;
        let found = self.0.images.find(&name).map_err(Error::from)?;
        let info = match &found {
            Some(found) if request.verbose => image::info(found)?,
            _ => HashMap::new(),
        };
        Ok(Response::new(cri::ImageStatusResponse { image: found.as_ref().map(image::item), info }))
    }

    async fn pull_image(&self, request: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        let request = request.into_inner();
        let name = named(request.image)?;
        let credentials = request.auth.map(|auth| Credentials {
            username: auth.username,
            password: auth.password,
            auth: auth.auth,
            server_address: auth.server_address,
            identity_token: auth.identity_token,
            registry_token: auth.registry_token,
        });
        let pull = self.0.images.pull(&name, credentials);
        let pulled = self.0.shutdown.run_until_cancelled(pull).await;
        let ending = || Error::Ending(format!("the pull of image {name}"));
        let pulled = pulled.ok_or_else(ending)?.map_err(Error::from)?;
        Ok(Response::new(cri::PullImageResponse { image_ref: pulled.id }))
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Answer<cri::RemoveImageResponse> {
        let name = named(request.into_inner().image)?;
        let images = self.0.images.clone();
        self.0.finish(async move { Ok(images.remove(&name).await?) }).await?;
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<cri::ImageFsInfoRequest>) -> Answer<cri::ImageFsInfoResponse> {
        let images = self.0.images.usage().await.map_err(Error::from)?;
        let pods = filesystem::of_pods(&self.0).await?;
        // Both lie below the root directory: kubelet takes different paths for different file systems.
        let usage = |bytes, inodes| cri::FilesystemUsage {
            timestamp: unix_nanos(),
            fs_id: Some(cri::FilesystemIdentifier {
                mountpoint: self.0.config.root_dir.to_string_lossy().into_owned(),
            }),
            used_bytes: Some(cri::UInt64Value { value: bytes }),
            inodes_used: Some(cri::UInt64Value { value: inodes }),
        };
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: vec![usage(images.bytes, images.inodes)],
            container_filesystems: vec![usage(pods.bytes, pods.inodes)],
        }))
    }
}

impl Images {
    fn list(&self, filter: Option<cri::ImageFilter>) -> Result<Vec<cri::Image>, Error> {
        let wanted = filter.and_then(|filter| filter.image).unwrap_or_default().image;
        let found = if wanted.is_empty() {
            self.0.images.list()
        } else {
            self.0.images.find(&wanted)?.into_iter().collect()
        };
        Ok(found.iter().map(image::item).collect())
    }
}

fn named(image: Option<cri::ImageSpec>) -> Result<String, Error> {
    match image {
        Some(image) if !image.image.is_empty() => Ok(image.image),
        _ => Err(Error::Invalid("the request's image is missing".into())),
    }
}

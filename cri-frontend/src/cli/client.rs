//! The frontend that serves here, as any client sees it.

use a3s_box_proto::{
    config::Config,
    cri::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
};
use tonic::transport::{Channel, Endpoint};

use super::Failure;

/// Of one answer, as the frontend sends it: the list of a full node has each pod's annotations.
const MAX_ANSWER: usize = 16 << 20;

/// A connection to both services.
#[derive(Debug, Clone)]
pub struct Client {
    /// Pods and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub images: ImageServiceClient<Channel>,
}

impl Client {
    /// Connects to the socket of the configuration.
    pub async fn connect(config: &Config) -> Result<Self, Failure> {
        let socket = config.cri.socket.display();
        let channel = Endpoint::from_shared(format!("unix://{socket}"))?
            .connect()
            .await
            .map_err(|error| format!("no frontend serves at {socket}: {}", root_cause(&error)))?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER),
        })
    }
}

/// gRPC's own words around an answer tell a user nothing.
pub fn plain(status: &tonic::Status) -> String {
    status.message().to_owned()
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

//! A TCP server that speaks SPDY/3.1 from the first byte, and sends back on each stream what comes on it.
//!
//! `cargo run -p a3s-box-spdy --example echo 127.0.0.1:9000`

use std::{env, error::Error};

use a3s_box_spdy::{Config, Headers, Incoming, Session};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).ok_or("which address?")?;
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (connection, peer) = listener.accept().await?;
        // Every frame is written as soon as it is there; to wait for more costs 40 ms a turn.
        connection.set_nodelay(true)?;
        tokio::spawn(async move { println!("{peer}: {}", serve(connection).await) });
    }
}

/// Serves one connection, and says how it ended.
async fn serve(connection: TcpStream) -> String {
    let (mut session, driver) = Session::new(connection, &Config::default());
    let accept = tokio::spawn(async move {
        while let Some(incoming) = session.accept().await {
            tokio::spawn(async move {
                if let Err(error) = echo(incoming).await {
                    println!("a stream: {error}");
                }
            });
        }
    });
    let ended = driver.run().await;
    accept.abort();
    format!("{ended:?}")
}

async fn echo(incoming: Incoming) -> Result<(), a3s_box_spdy::StreamError> {
    let mut stream = incoming.reply(&Headers::new())?;
    while let Some(bytes) = stream.recv.recv().await? {
        stream.send.send(bytes).await?;
    }
    stream.send.finish()
}

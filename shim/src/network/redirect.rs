//! Ties each of the pod's interfaces to a tap of the VM: what comes in at one goes out at the other.

use std::{fs::File, io};

use rtnetlink::{Error, Handle, LinkUnspec};

use super::{link_index, pod_links, tap_name, within};

/// `ETH_P_ALL`, in network byte order as tc wants it.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();

/// Our filter comes before others.
const PRIORITY: u16 = 1;

/// Redirects both ways. Without an interface in the namespace there is nothing to tie.
///
/// # Errors
/// The kernel lacks `u32` or `mirred`, or the tap is gone.
pub async fn tie(netns: File) -> io::Result<()> {
    within(netns, |handle| async move {
        for (device, link) in pod_links(&handle).await?.into_iter().enumerate() {
            let tap = link_index(&handle, &tap_name(device)).await?;
            let same_size = LinkUnspec::new_with_index(tap).mtu(link.mtu).build();
            handle.link().set(same_size).execute().await.map_err(io::Error::other)?;
            redirect(&handle, link.index, tap).await?;
            redirect(&handle, tap, link.index).await?;
        }
        Ok(())
    })
    .await
}

async fn redirect(handle: &Handle, from: u32, to: u32) -> io::Result<()> {
    let index = i32::try_from(from).map_err(io::Error::other)?;
    let mut filters = handle.traffic_filter(index);
    match handle.qdisc().add(index).ingress().execute().await {
        Err(Error::NetlinkError(error)) if error.to_io().kind() == io::ErrorKind::AlreadyExists => {
            // Of an attempt before, to a tap that is gone; or somebody else's, which could not see a packet any more.
            // Without any, the removal fails, as it should.
            let _ = filters.del().ingress().execute().await;
        }
        other => other.map_err(io::Error::other)?,
    }
    let filter = filters.add().ingress().priority(PRIORITY).protocol(ALL_PROTOCOLS).redirect(to);
    filter.map_err(io::Error::other)?.execute().await.map_err(io::Error::other)
}

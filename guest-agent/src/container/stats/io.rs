//! What went to and from block devices.

use super::pressure::Pressure;

/// One device's counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Of its number.
    pub major: u32,
    /// Of its number.
    pub minor: u32,
    /// From it.
    pub read: Transfer,
    /// To it.
    pub written: Transfer,
}

/// One direction's counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// In all requests.
    pub bytes: u64,
    /// How many.
    pub requests: u64,
}

/// All devices'.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Io {
    /// Devices that were used.
    pub devices: Vec<Device>,
    /// Waiting for them.
    pub pressure: Pressure,
}

impl Io {
    /// `io.stat` and `io.pressure`.
    pub fn parse(stat: &str, pressure: &str) -> Self {
        Self { devices: stat.lines().filter_map(device).collect(), pressure: pressure.into() }
    }
}

/// `254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`. A device that was never used has no counters.
fn device(line: &str) -> Option<Device> {
    let (number, counters) = line.split_once(' ')?;
    let (major, minor) = number.split_once(':')?;
    let value = |key: &str| {
        counters.split_ascii_whitespace().find_map(|pair| pair.strip_prefix(key)?.parse::<u64>().ok())
    };
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        read: Transfer { bytes: value("rbytes=")?, requests: value("rios=")? },
        written: Transfer { bytes: value("wbytes=")?, requests: value("wios=")? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_by_their_numbers() {
        let stat = "254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n7:0 \n";
        let io = Io::parse(stat, "");
        let read = Transfer { bytes: 8192, requests: 2 };
        let written = Transfer { bytes: 4096, requests: 1 };
        assert_eq!(io.devices, [Device { major: 254, minor: 0, read, written }]);
    }
}

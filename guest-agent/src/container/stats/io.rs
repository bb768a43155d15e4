//! What went to and from block devices.

use super::pressure::Pressure;

/// One device's counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major and minor number.
    pub number: [u32; 2],
    /// Bytes, and requests.
    pub read: [u64; 2],
    /// The same.
    pub written: [u64; 2],
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
        number: [major.parse().ok()?, minor.parse().ok()?],
        read: [value("rbytes=")?, value("rios=")?],
        written: [value("wbytes=")?, value("wios=")?],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_by_their_numbers() {
        let stat = "254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n7:0 \n";
        let io = Io::parse(stat, "");
        assert_eq!(io.devices, [Device { number: [254, 0], read: [8192, 2], written: [4096, 1] }]);
    }
}

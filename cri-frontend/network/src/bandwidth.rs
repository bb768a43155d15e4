//! How fast a pod may send and receive: Kubernetes' annotations, and CNI's words for them.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

/// Bits per second towards the pod.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
/// Bits per second from the pod.
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Kubernetes' own bounds, in bits per second.
const RATES: std::ops::RangeInclusive<f64> = 1e3..=1e15;
/// Bits at once, as containerd says: no bound but the plugins' own.
const BURST: u64 = u32::MAX as u64;

/// A pod's bounds, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "Rates")]
pub struct Bandwidth {
    /// Towards the pod.
    pub ingress: Option<u64>,
    /// From the pod.
    pub egress: Option<u64>,
}

impl Bandwidth {
    /// Reads a pod's annotations; none, where neither is there.
    ///
    /// # Errors
    /// A value is no quantity from 1k to 1P; the message names the annotation.
    pub fn parse<'a>(annotation: impl Fn(&str) -> Option<&'a String>) -> Result<Option<Self>, String> {
        let read = |name: &str| annotation(name).map(|value| rate(name, value)).transpose();
        let bandwidth = Self { ingress: read(INGRESS)?, egress: read(EGRESS)? };
        Ok((bandwidth.ingress.is_some() || bandwidth.egress.is_some()).then_some(bandwidth))
    }
}

fn rate(name: &str, value: &str) -> Result<u64, String> {
    let rate = quantity(value).filter(|rate| RATES.contains(rate));
    // The bounds keep it far below what a double counts exactly.
    rate.map(|rate| rate.ceil() as u64).ok_or_else(|| {
        let shown: String = value.chars().take(64).collect();
        format!("annotation {name}: {shown:?} is no quantity from 1k to 1P, as in 10M")
    })
}

/// Kubernetes' quantities: a decimal number, and a suffix or an exponent.
fn quantity(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let number: f64 = digits.parse().ok()?;
    let factor = match suffix {
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        exponent => 10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?.into()),
    };
    Some(number * factor)
}

/// CNI's form.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rates {
    ingress_rate: Option<u64>,
    egress_rate: Option<u64>,
}

impl From<Rates> for Bandwidth {
    fn from(rates: Rates) -> Self {
        Self { ingress: rates.ingress_rate, egress: rates.egress_rate }
    }
}

impl Serialize for Bandwidth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (rate, burst, value) in
            [("ingressRate", "ingressBurst", self.ingress), ("egressRate", "egressBurst", self.egress)]
        {
            if let Some(value) = value {
                map.serialize_entry(rate, &value)?;
                map.serialize_entry(burst, &BURST)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<Bandwidth>, String> {
        let all: HashMap<_, _> = pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Bandwidth::parse(|name| all.get(name))
    }

    #[test]
    fn kubernetes_quantities_become_bits_per_second() {
        assert_eq!(parse(&[("other", "1M")]).unwrap(), None);
        for (text, rate) in [
            ("10M", 10_000_000),
            ("1.5k", 1500),
            ("1Gi", 1 << 30),
            ("2e6", 2_000_000),
            ("2E6", 2_000_000),
            ("1000500m", 1001),
            ("1P", 1_000_000_000_000_000),
        ] {
            let bandwidth = parse(&[(EGRESS, text)]).unwrap().unwrap();
            assert_eq!(bandwidth, Bandwidth { ingress: None, egress: Some(rate) }, "{text}");
            let stored = serde_json::to_string(&bandwidth).unwrap();
            assert_eq!(serde_json::from_str::<Bandwidth>(&stored).unwrap(), bandwidth);
        }
        for bad in ["", "fast", "10", "-1M", "1MB", "1e", "1e999", "2P", "1..5M", "10 M", "e6", "NaN", "infk"]
        {
            let error = parse(&[(INGRESS, bad)]).unwrap_err();
            assert!(error.contains(INGRESS), "{bad:?}: {error}");
        }
    }
}

//! Durations as the Gateway API writes them (GEP-2257).

use ringmail_proto::Invalid;

/// `1h30m`, `500ms`, in milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<u64, Invalid> {
    let refuse = || Invalid::new("duration", "is none like 1h30m, 10s or 500ms (GEP-2257)");
    let (mut total, mut rest, mut parts) = (0_u64, text, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let units = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(units);
        let factor = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return Err(refuse()),
        };
        parts += 1;
        if number.is_empty() || number.len() > 5 || parts > 4 {
            return Err(refuse());
        }
        total += number.parse::<u64>().map_err(|_| refuse())? * factor;
        rest = after;
    }
    if parts == 0 {
        return Err(refuse());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_gep_2257() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("10s5ms", Some(10_005)),
            ("", None),
            ("10", None),
            ("1.5s", None),
            ("-1s", None),
            ("1d", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
        ] {
            assert_eq!(milliseconds(text).ok(), expected, "{text}");
        }
    }
}

//! Bodies of a hundred events, made by patching a template.
//!
//! Invariant: an event's id contains its number, and all its other fields follow from the number,
//! so a number always gives the same row. Patching is cheap, because senders, service and server
//! share a few cores.

use recsys_ingest::event::table::Table;

/// Events in a body.
pub const BODY_EVENTS: u64 = 100;

/// The position that marks a poisoned row.
pub const POISON: u64 = 999;

/// The prefix of all ids; the number follows in twelve hex digits.
const ID_PREFIX: &str = "019cd6c2-8c7b-7000-8000-";
const NUMBER_SLOT: &str = "############";
const TIME_SLOT: &str = "@@:@@:@@.@@@";
const POSITION_SLOT: &str = "$$$";

/// Milliseconds between two events: 86 million events fit into one day, and so into one
/// partition.
const STEP_MS: u64 = 1;

/// Which events a body holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mix {
    /// Each event is sent once.
    #[default]
    Clean,
    /// The first thirty events of a body repeat events of an earlier body.
    Repeats {
        /// How many bodies earlier.
        back: u64,
    },
    /// One event in `every` is poisoned.
    Poisoned {
        /// The distance between two poisoned events.
        every: u64,
    },
}

/// Events at the start of a body that are repeats.
const REPEATS: u64 = 30;

impl Mix {
    /// The number of the event at index `at` of a body.
    pub fn number(self, body: u64, at: u64) -> u64 {
        match self {
            Mix::Clean | Mix::Poisoned { .. } => body * BODY_EVENTS + at,
            Mix::Repeats { back } => {
                let fresh = BODY_EVENTS - REPEATS;
                match at.checked_sub(REPEATS) {
                    Some(at) => body * fresh + at,
                    None => (body - body.min(back)) * fresh + at,
                }
            }
        }
    }

    /// Whether an event has the position that the test's constraint refuses.
    pub fn is_poisoned(self, number: u64) -> bool {
        matches!(self, Mix::Poisoned { every } if number % every == every / 2)
    }

    /// A number above all numbers of the first `bodies` bodies.
    pub fn numbers(self, bodies: u64) -> u64 {
        match self {
            Mix::Clean | Mix::Poisoned { .. } => bodies * BODY_EVENTS,
            Mix::Repeats { .. } => (bodies * (BODY_EVENTS - REPEATS)).max(REPEATS),
        }
    }
}

/// A body with slots for ids, times and positions.
#[derive(Clone, Debug)]
pub struct Template {
    table: Table,
    text: Vec<u8>,
    event_bytes: usize,
    slots: [Option<usize>; 3],
}

impl Template {
    /// A template of native events for `table`.
    pub fn new(table: Table) -> Self {
        let (from, to) = match table {
            Table::Interactions => (
                r#","event_type":"click","item_id":"item-12345","surface":"home","#,
                r#""segment":"s1","user_id":"user-123456","session_id":"s-1234567","value":12.5,"#,
            ),
            Table::Exposures => (
                r#","request_id":"019cd6c2-8c7b-7000-8000-000000000001","surface":"home","#,
                r#""user_id":"u-1","items":[{"item_id":"a","rank":1},{"item_id":"b","rank":2}],"#,
            ),
            Table::Assignments => (
                r#","request_id":"019cd6c2-8c7b-7000-8000-000000000001","user_id":"u-1","#,
                r#""experiment_id":"ranking","variant":"B","#,
            ),
        };
        let last = match table {
            Table::Interactions => format!(r#""position":{POSITION_SLOT}"#),
            Table::Exposures => r#""segment":"s1""#.to_owned(),
            Table::Assignments => r#""context":{"surface":"home"}"#.to_owned(),
        };
        let time = match table {
            Table::Assignments => "ts",
            Table::Exposures | Table::Interactions => "occurred_at",
        };
        let event = format!(
            "{{\"event_id\":\"{ID_PREFIX}{NUMBER_SLOT}\",\"{time}\":\"2026-03-10T{TIME_SLOT}Z\"{from}{to}{last}}}"
        );
        let count = usize::try_from(BODY_EVENTS).unwrap();
        Self {
            table,
            text: format!("[{}]", vec![event.as_str(); count].join(",")).into(),
            event_bytes: event.len() + 1,
            slots: [NUMBER_SLOT, TIME_SLOT, POSITION_SLOT].map(|slot| event.find(slot)),
        }
    }

    /// The endpoint for these bodies.
    pub fn path(&self) -> &'static str {
        self.table.path()
    }

    /// Fills in the events of body number `body` in a mix.
    pub fn fill(&mut self, mix: Mix, body: u64) -> &[u8] {
        let mut event = 1;
        for at in 0..BODY_EVENTS {
            let number = mix.number(body, at);
            let [id, time, position] = self.slots.map(|slot| slot.map(|slot| event + slot));
            hex(&mut self.text[id.unwrap()..], number);
            clock(&mut self.text[time.unwrap()..], number * STEP_MS);
            if let Some(position) = position {
                let value = match mix.is_poisoned(number) {
                    true => POISON,
                    false => 100 + number % 800,
                };
                digits(&mut self.text[position..position + 3], value);
            }
            event += self.event_bytes;
        }
        &self.text
    }
}

/// The number in an event's id, if this module made the id.
pub fn number_of(id: &[u8; 16]) -> Option<u64> {
    let prefix = ID_PREFIX.replace('-', "");
    let prefix = u128::from_str_radix(&prefix, 16).unwrap() << 48;
    let rest = u128::from_be_bytes(*id).checked_sub(prefix)?;
    (rest >> 48 == 0).then(|| u64::try_from(rest).unwrap())
}

fn hex(slot: &mut [u8], number: u64) {
    for (at, digit) in slot[..NUMBER_SLOT.len()].iter_mut().rev().enumerate() {
        let nibble = usize::try_from(number >> (4 * at) & 0xf).unwrap();
        *digit = b"0123456789abcdef"[nibble];
    }
}

fn clock(slot: &mut [u8], ms: u64) {
    assert!(ms < 86_400_000, "more events than a day has room for");
    digits(&mut slot[0..2], ms / 3_600_000);
    digits(&mut slot[3..5], ms / 60_000 % 60);
    digits(&mut slot[6..8], ms / 1000 % 60);
    digits(&mut slot[9..12], ms % 1000);
    (slot[2], slot[5], slot[8]) = (b':', b':', b'.');
}

fn digits(slot: &mut [u8], mut number: u64) {
    for digit in slot.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap();
        number /= 10;
    }
}

#[test]
fn a_template_gives_each_number_its_event() {
    let mut template = Template::new(Table::Interactions);
    let mix = Mix::Poisoned { every: 1000 };
    let body: serde_json::Value = serde_json::from_slice(template.fill(mix, 54_321)).unwrap();
    let event = &body[99];
    let number = 5_432_199_u64;
    assert_eq!(event["event_id"], format!("{ID_PREFIX}{number:012x}"));
    assert_eq!(event["occurred_at"], "2026-03-10T01:30:32.199Z");
    assert_eq!(event["position"], 100 + number % 800);
    let body: serde_json::Value = serde_json::from_slice(template.fill(mix, 5)).unwrap();
    assert_eq!(body[0]["position"], POISON);
    let id = uuid::Uuid::parse_str(body[7]["event_id"].as_str().unwrap()).unwrap();
    assert_eq!(number_of(id.as_bytes()), Some(507));
    let repeats = Mix::Repeats { back: 2 };
    assert_eq!(repeats.number(5, 0), 3 * 70);
    assert_eq!(repeats.number(5, 30), 5 * 70);
}

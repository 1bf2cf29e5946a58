//! Flags that change the settings of keys and tenants.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use anyhow::{Result, bail};
use clap::Args;

use crate::config::parse;
use crate::tenants::settings::{Limits, Origins, TenantSettings, two_types};

/// Changes of limits.
#[derive(Args, Clone, Debug, Default)]
pub struct LimitFlags {
    /// Events a second, in the long run
    #[arg(long, value_name = "N", value_parser = number)]
    pub events_per_second: Option<NonZeroU32>,
    /// Events at once, after a pause [default: those of one second]
    #[arg(long, value_name = "N", value_parser = number)]
    pub events_burst: Option<NonZeroU32>,
    /// Bytes of bodies a second, in the long run, after decompression, such as 1MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub bytes_per_second: Option<NonZeroU32>,
    /// Bytes at once, after a pause [default: those of one second]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub bytes_burst: Option<NonZeroU32>,
    /// Forget the limits that were set; those given beside this are set
    #[arg(long)]
    pub no_limits: bool,
}

/// Changes of the origins of web pages.
#[derive(Args, Clone, Debug, Default)]
pub struct OriginFlags {
    /// Let web pages of this origin in, such as https://shop.example or https://*.shop.example; may be given several times, and replaces the list
    #[arg(long = "origin", value_name = "ORIGIN", value_parser = origin)]
    pub origins: Vec<String>,
    /// Let no web page in
    #[arg(long, conflicts_with = "origins")]
    pub no_origins: bool,
    /// Forget the list: the next wider settings decide
    #[arg(long, conflicts_with_all = ["origins", "no_origins"])]
    pub default_origins: bool,
}

/// Changes of a tenant's event names and surfaces.
#[derive(Args, Clone, Debug, Default)]
pub struct NameFlags {
    /// Store events of this name as this type, such as 'Product Viewed=view'; may be given several times, and adds to the map
    #[arg(long = "event-name", value_name = "NAME=TYPE", value_parser = event_name)]
    pub event_names: Vec<(String, String)>,
    /// Forget the map; the names given beside this are set
    #[arg(long)]
    pub no_event_names: bool,
    /// Take events of this surface only; up to 512 bytes without '/', '\' and control characters; may be given several times, and replaces the list
    #[arg(long = "surface", value_name = "SURFACE")]
    pub surfaces: Vec<String>,
    /// Take events of any surface
    #[arg(long, conflicts_with = "surfaces")]
    pub any_surface: bool,
}

impl LimitFlags {
    /// Applies the flags that were given.
    pub(crate) fn apply(&self, limits: &mut Limits) {
        if self.no_limits {
            *limits = Limits::default();
        }
        limits.events_per_second = self.events_per_second.or(limits.events_per_second);
        limits.events_burst = self.events_burst.or(limits.events_burst);
        limits.bytes_per_second = self.bytes_per_second.or(limits.bytes_per_second);
        limits.bytes_burst = self.bytes_burst.or(limits.bytes_burst);
    }
}

impl OriginFlags {
    /// Applies the flags that were given.
    ///
    /// # Errors
    ///
    /// When an entry is not an origin.
    pub(crate) fn apply(&self, origins: &mut Option<Origins>) -> Result<()> {
        if self.default_origins {
            *origins = None;
        } else if self.no_origins || !self.origins.is_empty() {
            *origins = Some(Origins::parse(self.origins.iter().map(String::as_str))?);
        }
        Ok(())
    }
}

impl NameFlags {
    /// Applies the flags that were given.
    ///
    /// # Errors
    ///
    /// When an event name is given two types.
    pub(crate) fn apply(&self, settings: &mut TenantSettings) -> Result<()> {
        if self.no_event_names {
            settings.event_names = BTreeMap::new();
        }
        let mut given: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, event_type) in &self.event_names {
            match given.insert(name, event_type) {
                Some(other) if other != event_type => {
                    bail!("{}", two_types(name, other, event_type));
                }
                _ => {}
            }
        }
        settings
            .event_names
            .extend(self.event_names.iter().cloned());
        if self.any_surface {
            settings.surfaces = None;
        } else if !self.surfaces.is_empty() {
            let mut surfaces: Vec<String> = Vec::new();
            for surface in &self.surfaces {
                if !surfaces.contains(surface) {
                    surfaces.push(surface.clone());
                }
            }
            settings.surfaces = Some(surfaces);
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<NonZeroU32, String> {
    parse::count(NonZeroU32::MIN, NonZeroU32::MAX)(text)
}

fn size(text: &str) -> Result<NonZeroU32, String> {
    let size = parse::size(text)?;
    let bytes = u32::try_from(size.as_u64()).ok().and_then(NonZeroU32::new);
    bytes.ok_or_else(|| "it has to be from 1 byte to less than 4 GiB".to_owned())
}

fn origin(text: &str) -> Result<String, String> {
    match Origins::parse([text]) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn event_name(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((name, event_type)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), event_type.trim().to_owned()))
        }
        _ => Err(
            "it has to be a name, '=' and an event type, such as 'Product Viewed=view'".to_owned(),
        ),
    }
}

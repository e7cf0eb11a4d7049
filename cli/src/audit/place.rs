//! Where a log is: a folder, or a web address that a copy of such a folder is behind.

use signet_audit::{Folder, Resource, Source};

use super::web::Web;
use crate::failure::Failure;

pub(crate) enum Place {
    Folder(Folder),
    Web(Web),
}

impl Place {
    pub(crate) fn of(text: &str) -> Result<Self, Failure> {
        match Web::of(text).map_err(|failure| failure.or_remedy("give the URL that the log is below"))? {
            Some(web) => Ok(Self::Web(web)),
            None if std::path::Path::new(text).is_dir() => Ok(Self::Folder(Folder::new(text))),
            None => Err(Failure::new(format!("{text} is no folder"))
                .remedy("give the folder that has `checkpoint` and `tile`, or an http:// or https:// URL")),
        }
    }
}

impl Source for Place {
    fn read(&self, resource: Resource, most: usize) -> std::io::Result<Option<Vec<u8>>> {
        match self {
            Self::Folder(folder) => folder.read(resource, most),
            Self::Web(web) => web.read(&resource.to_string(), most),
        }
    }
}

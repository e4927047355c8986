//! `GET /images/search?term=…&limit=…&filters=…`.

use crate::distribution::credentials;
use crate::http::{Error, Reply, json};
use crate::server::Call;
use api_types as types;
use engine::images::registry::{Credentials, Found};

/// How many results there are when nobody says, and at most.
const RESULTS_DEFAULT: usize = 25;
const RESULTS_MAX: usize = 100;

/// What a result has to be.
struct Wanted {
    official: Option<bool>,
    automated: Option<bool>,
    stars_min: i64,
}

impl Wanted {
    fn read(filters: &types::Filters) -> Result<Self, Error> {
        let flag = |name: &str| match filters.get(name).next() {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(other) => Err(Error::bad_request(format!(
                "invalid filter '{name}={other}'"
            ))),
        };
        let stars = |text: &str| {
            text.parse::<i64>().map_err(|error| {
                Error::bad_request(format!("invalid filter 'stars={text}': {error}"))
            })
        };
        let stars = filters.get("stars").map(stars);
        Ok(Self {
            official: flag("is-official")?,
            automated: flag("is-automated")?,
            stars_min: stars
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .max()
                .unwrap_or(0),
        })
    }

    fn admits(&self, found: &Found) -> bool {
        self.official.is_none_or(|official| official == found.official)
            // No registry makes images by itself any more.
            && self.automated != Some(true)
            && found.stars >= self.stars_min
    }
}

pub(crate) async fn search(call: &Call<'_>) -> Reply {
    let term = call.query.get("term").unwrap_or_default();
    let limit = match call.query.number::<usize>("limit")? {
        None | Some(0) => RESULTS_DEFAULT,
        Some(limit @ 1..=RESULTS_MAX) => limit,
        Some(limit) => {
            return Err(Error::bad_request(format!(
                "limit {limit} is outside the range of [1, {RESULTS_MAX}]"
            )));
        }
    };
    let filters = call
        .query
        .filters(&["is-automated", "is-official", "stars"])?;
    let wanted = Wanted::read(&filters)?;
    // Who cannot be told who it is, searches as nobody, as in Docker.
    let credentials = credentials(call.request.headers()).unwrap_or(Credentials::Anonymous);
    let found = call.engine.search(term, limit, &credentials).await?;
    let result = |found: Found| types::SearchResult {
        star_count: found.stars,
        is_official: found.official,
        name: found.name,
        is_automated: false,
        description: found.description,
    };
    let found = found.into_iter().filter(|found| wanted.admits(found));
    json(&found.map(result).collect::<Vec<_>>())
}

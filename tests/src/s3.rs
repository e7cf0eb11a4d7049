//! An object storage that speaks S3: `s3s` over a folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

/// Ends with it.
#[derive(Debug)]
pub struct S3 {
    pub address: SocketAddr,
    folder: PathBuf,
    /// None while it is away.
    runtime: Option<Runtime>,
}

impl S3 {
    pub const KEY_ID: &str = "the-id";
    pub const SECRET: &str = "the-secret";

    /// With one bucket, whose objects are the files of `folder/bucket`.
    pub fn start(folder: &Path, bucket: &str) -> Self {
        fs::create_dir_all(folder.join(bucket)).unwrap();
        let mut storage =
            Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), folder: folder.to_owned(), runtime: None };
        storage.come_back();
        storage
    }

    /// Connections end, and new ones are refused.
    pub fn go_away(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// At the same address.
    pub fn come_back(&mut self) {
        let files = s3s_fs::FileSystem::new(&self.folder).unwrap();
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(Self::KEY_ID, Self::SECRET));
        let service = service.build();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async { listen(self.address) });
        self.address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let service = service.clone();
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(tcp), service).await);
                });
            }
        });
        self.runtime = Some(runtime);
    }

    /// The keys of a target that is `url` here. The key's files are beside the bucket.
    pub fn target(&self, url: &str) -> String {
        let files = [("access_key_id", Self::KEY_ID), ("secret_access_key", Self::SECRET)].map(|(name, value)| {
            let path = self.folder.join(name);
            fs::write(&path, format!("{value}\n")).unwrap();
            format!("{name}_file: {}", path.display())
        });
        format!("url: '{url}', endpoint: 'http://{}', {}", self.address, files.join(", "))
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.go_away();
    }
}

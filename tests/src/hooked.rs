//! Storage with a hook at each call: a test says in one place what it bends, delays or fails, whatever the call is.

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Generation, Meta, Object, Objects, ObjectsError};

/// Which call of the port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates or overwrites: the latter if [`Call::generation`] is some.
    Write,
    /// Removes.
    Remove,
    /// Looks what is known.
    Stat,
    /// Reads all of it.
    Read,
    /// Reads a part of it.
    Range,
    /// Lists names.
    List,
}

/// A call, as a hook sees and may bend it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which it is.
    pub op: Op,
    /// In which bucket.
    pub bucket: Bucket,
    /// Of which object; the prefix of what is listed.
    pub name: String,
    /// What is written; empty where nothing is.
    pub body: Bytes,
    /// The version that is expected or read; `None` = absent for a write, whichever is live for others.
    pub generation: Option<Generation>,
}

/// What happens at each call.
#[async_trait]
pub trait Hook: Send + Sync {
    /// Before the effect. An error is the reply, and there is no effect.
    async fn before(&self, call: &mut Call) -> Result<(), ObjectsError>;

    /// After the effect. An error is the reply in place of the true one.
    async fn after(&self, _call: &Call) -> Result<(), ObjectsError> {
        Ok(())
    }
}

/// A function is a hook before the effect.
#[async_trait]
impl<F: Fn(&mut Call) -> Result<(), ObjectsError> + Send + Sync> Hook for F {
    async fn before(&self, call: &mut Call) -> Result<(), ObjectsError> {
        self(call)
    }
}

/// These objects, with this hook.
pub struct Hooked<H> {
    objects: Arc<dyn Objects>,
    hook: H,
}

impl<H: Hook> Hooked<H> {
    /// Every call of `objects` goes by `hook`.
    pub fn new(objects: Arc<dyn Objects>, hook: H) -> Arc<Hooked<H>> {
        Arc::new(Hooked { objects, hook })
    }

    async fn before(
        &self,
        op: Op,
        (bucket, name): (Bucket, &str),
        body: Bytes,
        generation: Option<Generation>,
    ) -> Result<Call, ObjectsError> {
        let mut call = Call { op, bucket, name: name.to_owned(), body, generation };
        self.hook.before(&mut call).await?;
        Ok(call)
    }

    async fn after<T>(&self, call: &Call, reply: Result<T, ObjectsError>) -> Result<T, ObjectsError> {
        self.hook.after(call).await?;
        reply
    }

    async fn write(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        generation: Option<Generation>,
    ) -> Result<Meta, ObjectsError> {
        let call = self.before(Op::Write, (bucket, name), body, generation).await?;
        let (name, body) = (&call.name, call.body.clone());
        let reply = match call.generation {
            None => self.objects.create(bucket, name, body).await,
            Some(expected) => self.objects.replace(bucket, name, body, expected).await,
        };
        self.after(&call, reply).await
    }
}

#[async_trait]
impl<H: Hook> Objects for Hooked<H> {
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError> {
        self.write(bucket, name, body, None).await
    }

    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError> {
        self.write(bucket, name, body, Some(expected)).await
    }

    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError> {
        let call = self.before(Op::Remove, (bucket, name), Bytes::new(), expected).await?;
        let reply = self.objects.remove(bucket, &call.name, call.generation).await;
        self.after(&call, reply).await
    }

    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError> {
        let call = self.before(Op::Stat, (bucket, name), Bytes::new(), None).await?;
        let reply = self.objects.stat(bucket, &call.name).await;
        self.after(&call, reply).await
    }

    async fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError> {
        let call = self.before(Op::Read, (bucket, name), Bytes::new(), generation).await?;
        let reply = self.objects.read(bucket, &call.name, call.generation).await;
        self.after(&call, reply).await
    }

    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        let call = self.before(Op::Range, (bucket, name), Bytes::new(), Some(generation)).await?;
        let generation = call.generation.unwrap_or(generation);
        let reply = self.objects.read_range(bucket, &call.name, generation, offset, most).await;
        self.after(&call, reply).await
    }

    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError> {
        let call = self.before(Op::List, (bucket, prefix), Bytes::new(), None).await?;
        let reply = self.objects.list(bucket, &call.name, after, most).await;
        self.after(&call, reply).await
    }
}

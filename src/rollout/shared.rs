//! Where the columns of a rollout lie: in this process's own memory, or in memory that it shares with another one.

use crate::memory::Column;
use crate::{Error, Result};
use imago_envs::{Dtype, LeafMut, Space};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Tensor, kind::Element};

/// Every column begins at a multiple of this many bytes, as libtorch's own tensors do.
const ALIGNMENT: usize = 64;

/// Gives columns their memory, one after another.
pub(crate) enum Memory {
    /// libtorch's.
    Own,
    /// As [`Memory::Own`], counting how many bytes a mapping of the same columns would need.
    Counted(usize),
    /// Parts of a mapping, in the order in which they are asked for.
    Mapped {
        /// The mapping.
        map: Arc<MmapRaw>,
        /// Bytes that are given away.
        used: usize,
    },
}

impl Memory {
    /// A column of zeros (a mapping is zero at first).
    pub fn column<T: Element>(&mut self, shape: &[i64]) -> Column<T> {
        let bytes = shape.iter().product::<i64>() as usize * size_of::<T>();
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        match self {
            Memory::Own => Column::zeros(shape),
            Memory::Counted(sum) => {
                *sum += bytes;
                Column::zeros(shape)
            }
            Memory::Mapped { map, used } => {
                assert!(*used + bytes <= map.len(), "the mapping has {} bytes and is used up", map.len());
                let strides: Vec<i64> =
                    (0..shape.len()).map(|i| shape[i + 1..].iter().product::<i64>().max(1)).collect();
                // SAFETY: a part of the mapping that nobody else is given, aligned, and large enough. The owner of the
                // column keeps the mapping.
                let tensor = unsafe {
                    Tensor::from_blob(map.as_mut_ptr().add(*used), shape, &strides, T::KIND, Device::Cpu)
                };
                *used += bytes;
                Column::of(tensor)
            }
        }
    }

    /// Elements of `space`, `lead` of them.
    pub fn leaves(&mut self, lead: &[usize], space: &Space) -> Leaves {
        self.values(&[lead, space.shape()].concat(), space.dtype())
    }

    /// Values of `shape`.
    pub fn values(&mut self, shape: &[usize], dtype: Dtype) -> Leaves {
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        match dtype {
            Dtype::F32 => Leaves::F32(self.column(&shape)),
            Dtype::U8 => Leaves::U8(self.column(&shape)),
            Dtype::I64 => Leaves::I64(self.column(&shape)),
        }
    }

    /// What has to stay alive as long as the columns.
    pub fn keep(&self) -> Option<Arc<MmapRaw>> {
        match self {
            Memory::Own | Memory::Counted(_) => None,
            Memory::Mapped { map, .. } => Some(map.clone()),
        }
    }
}

/// A file in memory that another process can map, too.
pub(crate) struct SharedFile {
    file: File,
    map: Arc<MmapRaw>,
}

impl SharedFile {
    /// `bytes` zeros.
    ///
    /// # Errors
    /// The system has no such files, or not so much memory.
    pub fn create(bytes: usize) -> Result<Self> {
        let made = || -> io::Result<Self> {
            let file = File::from(memfd_create("imago-rollout", MemfdFlags::CLOEXEC)?);
            ftruncate(&file, bytes.max(1) as u64)?;
            Ok(Self { map: Arc::new(MmapOptions::new().map_raw(&file)?), file })
        };
        made().map_err(Error::io("share memory of", Path::new("rollouts")))
    }

    /// The file that another process of the same user created and calls `path`.
    ///
    /// # Errors
    /// That process is gone.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let file = File::options().read(true).write(true).open(path)?;
            Ok(Self { map: Arc::new(MmapOptions::new().map_raw(&file)?), file })
        };
        open().map_err(Error::io("map", path))
    }

    /// Where another process finds it, as long as this one lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Its memory, from the beginning.
    pub fn memory(&self) -> Memory {
        Memory::Mapped { map: self.map.clone(), used: 0 }
    }
}

/// Observations or actions: a column of the type their space stores.
pub(crate) enum Leaves {
    F32(Column<f32>),
    U8(Column<u8>),
    I64(Column<i64>),
}

impl Leaves {
    pub fn tensor(&self) -> &Tensor {
        match self {
            Leaves::F32(column) => column.tensor(),
            Leaves::U8(column) => column.tensor(),
            Leaves::I64(column) => column.tensor(),
        }
    }

    /// Values `row · size .. (row + 1) · size`, to write to.
    pub fn row(&mut self, row: usize, size: usize) -> LeafMut<'_> {
        let range = row * size..(row + 1) * size;
        match self {
            Leaves::F32(column) => LeafMut::F32(&mut column[range]),
            Leaves::U8(column) => LeafMut::U8(&mut column[range]),
            Leaves::I64(column) => LeafMut::I64(&mut column[range]),
        }
    }

    /// All of it as bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Leaves::F32(column) => bytemuck::cast_slice(column),
            Leaves::U8(column) => column,
            Leaves::I64(column) => bytemuck::cast_slice(column),
        }
    }

    /// Takes over what [`Leaves::bytes`] gave of as many elements.
    ///
    /// # Panics
    /// If it was another number.
    pub fn copy_bytes(&mut self, bytes: &[u8]) {
        match self {
            Leaves::F32(column) => bytemuck::cast_slice_mut(column).copy_from_slice(bytes),
            Leaves::U8(column) => column.copy_from_slice(bytes),
            Leaves::I64(column) => bytemuck::cast_slice_mut(column).copy_from_slice(bytes),
        }
    }
}

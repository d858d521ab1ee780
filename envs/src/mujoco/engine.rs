//! MuJoCo through its C functions: the library of the extra `mujoco`, without Python.
//!
//! Models and simulations are opaque here: all that is read or written goes through `mj_getState` and `mj_setState`, so
//! that no layout of a struct is relied upon.

use crate::error::{Error, Result};
use crate::extras::Extra;
use crate::python;
use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Major version whose numbers for the parts of a state these are.
const MAJOR: c_int = 4;

/// Parts of a state (`mjtState`).
pub(super) const TIME: c_int = 1;
pub(super) const POSITION: c_int = 1 << 1;
pub(super) const VELOCITY: c_int = 1 << 2;
pub(super) const CONTROL: c_int = 1 << 6;
/// All of them: what decides about all that follows.
pub(super) const EVERYTHING: c_int = (1 << 15) - 1;

/// The functions that are used. They live as long as the program: the library is never closed.
struct Functions {
    load: unsafe extern "C" fn(*const c_char, *const c_void, *mut c_char, c_int) -> *mut c_void,
    delete_model: unsafe extern "C" fn(*mut c_void),
    make_data: unsafe extern "C" fn(*const c_void) -> *mut c_void,
    delete_data: unsafe extern "C" fn(*mut c_void),
    reset: unsafe extern "C" fn(*const c_void, *mut c_void),
    forward: unsafe extern "C" fn(*const c_void, *mut c_void),
    step: unsafe extern "C" fn(*const c_void, *mut c_void),
    state_size: unsafe extern "C" fn(*const c_void, c_int) -> c_int,
    get_state: unsafe extern "C" fn(*const c_void, *const c_void, *mut f64, c_int),
    set_state: unsafe extern "C" fn(*const c_void, *mut c_void, *const f64, c_int),
}

extern "C" fn ignore(_message: *const c_char) {}

impl Functions {
    /// Those of the installed library, opened once.
    fn get(id: &str) -> Result<&'static Self> {
        static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();
        let missing = || Error::MissingPackage {
            id: id.into(),
            package: "MuJoCo".into(),
            install: Extra::named("mujoco").map_or(String::new(), Extra::command),
        };
        let folder = python::site_packages().map(|packages| packages.join("mujoco"));
        let library = folder.and_then(|folder| library_in(&folder)).ok_or_else(missing)?;
        // SAFETY: MuJoCo's own library, which does nothing when it is opened.
        let functions = FUNCTIONS.get_or_init(|| unsafe { Self::open(&library) });
        functions.as_ref().map_err(|message| Error::Contract { id: id.into(), message: message.clone() })
    }

    /// # Safety
    /// `path` is MuJoCo's library.
    unsafe fn open(path: &Path) -> Result<Self, String> {
        let cannot = |error: libloading::Error| format!("{}: {error}", path.display());
        // SAFETY: the caller's; types are those of mujoco.h.
        unsafe {
            let library: &'static Library = Box::leak(Box::new(Library::new(path).map_err(cannot)?));
            let version: Symbol<unsafe extern "C" fn() -> c_int> =
                library.get(b"mj_version").map_err(cannot)?;
            // 4.0.0 is 4000000; of the versions before it, 3.3.2 is 332.
            let found = version();
            if found / 1_000_000 != MAJOR {
                return Err(format!(
                    "{} is MuJoCo's version {found}, this program knows {MAJOR}.x; imago envs install mujoco",
                    path.display()
                ));
            }
            // Otherwise a simulation that diverges writes MUJOCO_LOG.TXT wherever the program was started. It is begun
            // anew by MuJoCo either way.
            if let Ok(warning) = library.get::<*mut Option<extern "C" fn(*const c_char)>>(b"mju_user_warning")
            {
                (**warning).get_or_insert(ignore);
            }
            macro_rules! function {
                ($name:literal) => {
                    *library.get($name).map_err(cannot)?
                };
            }
            Ok(Self {
                load: function!(b"mj_loadXML"),
                delete_model: function!(b"mj_deleteModel"),
                make_data: function!(b"mj_makeData"),
                delete_data: function!(b"mj_deleteData"),
                reset: function!(b"mj_resetData"),
                forward: function!(b"mj_forward"),
                step: function!(b"mj_step"),
                state_size: function!(b"mj_stateSize"),
                get_state: function!(b"mj_getState"),
                set_state: function!(b"mj_setState"),
            })
        }
    }
}

/// The library in the package's folder.
fn library_in(folder: &Path) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let mut libraries =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("libmujoco.so"));
    libraries.next().map(|entry| entry.path())
}

/// A model and one simulation of it.
pub(super) struct Simulation {
    functions: &'static Functions,
    model: NonNull<c_void>,
    data: NonNull<c_void>,
}

// SAFETY: both belong to this value alone, and MuJoCo knows no threads.
unsafe impl Send for Simulation {}

impl Drop for Simulation {
    fn drop(&mut self) {
        // SAFETY: both are valid until now and nobody else has them.
        unsafe {
            (self.functions.delete_data)(self.data.as_ptr());
            (self.functions.delete_model)(self.model.as_ptr());
        }
    }
}

impl Simulation {
    /// A simulation of one of Gymnasium's models, at its beginning. `id` is what errors call it.
    ///
    /// # Errors
    /// MuJoCo is not installed, or in another version; a model that it refuses.
    pub fn new(id: &str, xml: &str) -> Result<Self> {
        // Reading models is said not to be safe in several threads.
        static LOADING: Mutex<()> = Mutex::new(());
        let functions = Functions::get(id)?;
        let contract = |message: String| Error::Contract { id: id.into(), message };
        let packages = python::site_packages().unwrap_or_default();
        let path = packages.join("gymnasium/envs/mujoco/assets").join(xml);
        let name = CString::new(path.to_string_lossy().as_bytes())
            .map_err(|error| contract(format!("{}: {error}", path.display())))?;
        let mut message: [c_char; 500] = [0; 500];
        let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: a name that ends with 0, room for a message that does; data is made of the model just read.
        let (model, data) = unsafe {
            let model = (functions.load)(name.as_ptr(), ptr::null(), message.as_mut_ptr(), 500);
            let Some(model) = NonNull::new(model) else {
                let message = CStr::from_ptr(message.as_ptr()).to_string_lossy();
                return Err(contract(format!("MuJoCo refuses {}: {message}", path.display())));
            };
            let Some(data) = NonNull::new((functions.make_data)(model.as_ptr())) else {
                (functions.delete_model)(model.as_ptr());
                return Err(contract(format!("MuJoCo has no memory for {}", path.display())));
            };
            (model, data)
        };
        Ok(Self { functions, model, data })
    }

    /// How many numbers these parts of the state are.
    pub fn size(&self, parts: c_int) -> usize {
        // SAFETY: a valid model.
        (unsafe { (self.functions.state_size)(self.model.as_ptr(), parts) }) as usize
    }

    /// Reads these parts of the state.
    pub fn get(&self, parts: c_int, state: &mut [f64]) {
        assert_eq!(state.len(), self.size(parts));
        // SAFETY: both valid, and room for as many numbers as are written.
        unsafe {
            (self.functions.get_state)(self.model.as_ptr(), self.data.as_ptr(), state.as_mut_ptr(), parts);
        }
    }

    /// Writes these parts of the state.
    pub fn set(&mut self, parts: c_int, state: &[f64]) {
        assert_eq!(state.len(), self.size(parts));
        // SAFETY: both valid, and as many numbers as are read.
        unsafe { (self.functions.set_state)(self.model.as_ptr(), self.data.as_ptr(), state.as_ptr(), parts) }
    }

    /// Goes back to the model's beginning.
    pub fn reset(&mut self) {
        // SAFETY: both valid.
        unsafe { (self.functions.reset)(self.model.as_ptr(), self.data.as_ptr()) }
    }

    /// Computes what follows from the state, without going on in time.
    pub fn forward(&mut self) {
        // SAFETY: both valid.
        unsafe { (self.functions.forward)(self.model.as_ptr(), self.data.as_ptr()) }
    }

    /// Goes on by `count` steps of the model's time.
    pub fn step(&mut self, count: u32) {
        for _ in 0..count {
            // SAFETY: both valid.
            unsafe { (self.functions.step)(self.model.as_ptr(), self.data.as_ptr()) }
        }
    }
}

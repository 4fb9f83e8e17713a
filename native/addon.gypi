{
  'variables': { 'warnings_are_errors%': 0 },
  'sources': [
    'addon.cc',
    'arguments.cc',
    'environment.cc',
    'eventfd.cc',
    'guarded_memory.cc',
    'htab.cc',
    'interrupt.cc',
    'mapping.cc',
    'mapping_table.cc',
    'memslot.cc',
    'ppc64.cc',
    's390x.cc',
    'system.cc',
    'vcpu.cc',
    'vcpu_calls.cc',
    'x86_64.cc',
  ],
  'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
  'defines': ['NAPI_VERSION=8', 'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS', '_FILE_OFFSET_BITS=64'],
  'cflags_cc': ['-std=c++17', '-fno-exceptions', '-fvisibility=hidden', '-Wall', '-Wextra', '-Wunused-parameter'],
  # A signal handler and vCPU threads may outlive the last environment that loaded the addon.
  'ldflags': ['-Wl,-z,nodelete'],
  'conditions': [
    ['warnings_are_errors==1', { 'cflags_cc': ['-Werror'] }],
  ],
}

{
  # The same addon with ThreadSanitizer (see run.mjs).
  'variables': { 'warnings_are_errors%': 0 },
  'targets': [
    {
      'target_name': 'kvm_bridge',
      'includes': ['../../addon.gypi'],
      'cflags': ['-fsanitize=thread', '-fno-omit-frame-pointer', '-O1'],
      'ldflags': ['-fsanitize=thread'],
    },
  ],
}

{
  # The same addon with AddressSanitizer and UndefinedBehaviorSanitizer, beside the ordinary one (see run.mjs).
  'variables': { 'warnings_are_errors%': 0 },
  'targets': [
    {
      'target_name': 'kvm_bridge',
      'includes': ['../addon.gypi'],
      'cflags': ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer', '-O1'],
      'ldflags': ['-fsanitize=address,undefined'],
    },
  ],
}

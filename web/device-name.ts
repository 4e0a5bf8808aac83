/** A name for this browser: what it is and where it runs, as far as it says. Signaling's list makes it unique. */

export function browserName(userAgent: string): string {
  const program = /Firefox\//.test(userAgent)
    ? 'firefox'
    : /Edg\//.test(userAgent)
      ? 'edge'
      : /Chrom(e|ium)\//.test(userAgent)
        ? 'chrome'
        : /Safari\//.test(userAgent)
          ? 'safari'
          : 'browser';
  const system = /Android/.test(userAgent)
    ? 'android'
    : /iPhone|iPad/.test(userAgent)
      ? 'ios'
      : /Mac OS X/.test(userAgent)
        ? 'mac'
        : /Windows/.test(userAgent)
          ? 'windows'
          : /Linux/.test(userAgent)
            ? 'linux'
            : 'tab';
  return `${program}-${system}`;
}

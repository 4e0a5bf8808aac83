import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { limits, MeshError } from '@cocoon-mesh/protocol';
import {
  formatCandidate,
  formatDescription,
  isIpAddress,
  isLoopback,
  parseCandidate,
  parseDescription,
} from './sdp.ts';

const digits = Array.from({ length: 32 }, (_, i) => (i * 7).toString(16).padStart(2, '0').toUpperCase());
const fingerprintLine = `a=fingerprint:sha-256 ${digits.join(':')}`;

/** As Chromium writes it, with a candidate inside. */
const offer = [
  'v=0',
  'o=- 4611731400430051336 2 IN IP4 127.0.0.1',
  's=-',
  't=0 0',
  'a=group:BUNDLE 0',
  'a=extmap-allow-mixed',
  'a=msid-semantic: WMS',
  'm=application 9 UDP/DTLS/SCTP webrtc-datachannel',
  'c=IN IP4 0.0.0.0',
  'a=candidate:1 1 udp 2113937151 7f2b8d9e-aaaa-4bbb-8ccc-1234567890ab.local 51000 typ host generation 0 network-cost 999',
  'a=candidate:2 1 tcp 1518149375 192.0.2.7 9 typ host tcptype active generation 0',
  'a=ice-ufrag:4ZcD',
  'a=ice-pwd:2/1muCWoOi3uLifh0NuRHlbQ',
  'a=ice-options:trickle',
  fingerprintLine,
  'a=setup:actpass',
  'a=mid:0',
  'a=sctp-port:5000',
  'a=max-message-size:262144',
  '',
].join('\r\n');

const badSdp = (error: unknown): boolean => error instanceof MeshError && error.code === 'bad_sdp';
const refused = (sdp: string, type: 'offer' | 'answer' = 'offer'): void =>
  assert.throws(() => parseDescription(sdp, type), badSdp);

describe('a session description', () => {
  it('is read into the few fields a data channel needs', () => {
    const description = parseDescription(offer, 'offer');
    assert.equal(description.iceUfrag, '4ZcD');
    assert.equal(description.icePassword, '2/1muCWoOi3uLifh0NuRHlbQ');
    assert.equal(description.fingerprint.length, 32);
    assert.equal(description.fingerprint[1], 7);
    assert.deepEqual(
      [description.setup, description.mid, description.sctpPort, description.maxMessageBytes],
      ['actpass', '0', 5000, 262_144],
    );
    assert.deepEqual(
      description.candidates.map((candidate) => candidate.port),
      [51000],
      'the TCP candidate is of no use to any engine',
    );
  });

  it('written anew says the same, and nothing the other side chose beside it', () => {
    const written = formatDescription(parseDescription(offer, 'offer'));
    const again = parseDescription(written, 'offer');
    assert.deepEqual(again, { ...parseDescription(offer, 'offer'), candidates: [] });
    assert.doesNotMatch(written, /extmap|msid|4611731400430051336|candidate/);
  });

  it('with bare line feeds or lower-case digits is the same description', () => {
    const lower = offer.replace(digits.join(':'), digits.join(':').toLowerCase()).replaceAll('\r\n', '\n');
    assert.deepEqual(parseDescription(lower, 'offer'), parseDescription(offer, 'offer'));
  });

  it('without a fingerprint, or with more than one, is refused', () => {
    refused(offer.replace(`${fingerprintLine}\r\n`, ''));
    const other = fingerprintLine.replace('sha-256 00', 'sha-256 FF');
    refused(offer.replace(fingerprintLine, `${fingerprintLine}\r\n${other}`));
    refused(offer.replace(fingerprintLine, `${fingerprintLine}\r\n${fingerprintLine}`));
    refused(offer.replace('a=group', `${other}\r\na=group`));
    refused(offer.replace(fingerprintLine, `${fingerprintLine}\r\na=fingerprint:sha-1 00:01`));
  });

  it('whose fingerprint is of another hash, too short or malformed is refused', () => {
    refused(offer.replace('sha-256', 'sha-1'));
    refused(offer.replace('sha-256', 'sha-512'));
    refused(offer.replace(`:${digits[31]}`, ''));
    refused(offer.replace(`:${digits[31]}`, ':GG'));
    refused(offer.replace(fingerprintLine, `${fingerprintLine} `));
    refused(offer.replace(fingerprintLine, `${fingerprintLine}:AA`));
  });

  it('with no section, several sections, or one of another kind is refused', () => {
    const section = 'm=application 9 UDP/DTLS/SCTP webrtc-datachannel';
    refused(offer.replace(section, 's=-'));
    refused(offer.replace(section, `${section}\r\n${section}`));
    refused(offer.replace(section, `${section}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111`));
    refused(offer.replace(section, 'm=audio 9 UDP/TLS/RTP/SAVPF 111'));
    refused(offer.replace(section, 'm=application 9 TCP/DTLS/SCTP webrtc-datachannel'));
    refused(offer.replace(section, 'm=application 9 UDP/DTLS/SCTP other'));
    refused(offer.replace(section, 'm=application 0 UDP/DTLS/SCTP webrtc-datachannel'));
    refused(offer.replace(section, 'm=application 99999 UDP/DTLS/SCTP webrtc-datachannel'));
  });

  it('takes each DTLS role only where it belongs', () => {
    const as = (setup: string): string => offer.replace('a=setup:actpass', `a=setup:${setup}`);
    assert.equal(parseDescription(as('active'), 'offer').setup, 'active');
    refused(as('passive'), 'offer');
    refused(as('holdconn'), 'answer');
    refused(as('actpass'), 'answer');
    assert.equal(parseDescription(as('active'), 'answer').setup, 'active');
    assert.equal(parseDescription(as('passive'), 'answer').setup, 'passive');
  });

  it('with a missing, repeated or malformed field is refused', () => {
    for (const field of ['ice-ufrag', 'ice-pwd', 'setup', 'mid', 'sctp-port']) {
      const line = offer.split('\r\n').find((candidate) => candidate.startsWith(`a=${field}:`)) ?? '';
      refused(offer.replace(`${line}\r\n`, ''));
      refused(offer.replace(line, `${line}\r\n${line}`));
      refused(offer.replace(line, `a=${field}:`));
      refused(offer.replace(line, `a=${field}:(;)`));
    }
    refused(offer.replace('a=sctp-port:5000', 'a=sctp-port:65536'));
    refused(offer.replace('a=sctp-port:5000', 'a=sctp-port:0'));
    refused(offer.replace('a=ice-ufrag:4ZcD', `a=ice-ufrag:${'x'.repeat(257)}`));
  });

  it('promises room for our largest message or is refused', () => {
    const sized = (size: string): string => offer.replace('size:262144', `size:${size}`);
    refused(sized('65535'));
    refused(sized('1'));
    refused(sized('-1'));
    refused(sized('1e9'));
    assert.equal(parseDescription(sized('65536'), 'offer').maxMessageBytes, 65_536);
    assert.equal(parseDescription(sized('0'), 'offer').maxMessageBytes, 262_144, 'zero means no limit');
    assert.equal(parseDescription(sized('99999999999999999999'), 'offer').maxMessageBytes, 262_144);
  });

  it('that is too long, not ASCII, or hides lines is refused', () => {
    refused('');
    refused('hello');
    refused(`\r\n${offer}`);
    refused(`${offer}a=x:${'y'.repeat(limits.maxSdpBytes)}`);
    refused(`${offer}a=note:ü\r\n`);
    refused(`${offer}a=note:\u0000\r\n`);
    refused(offer.replace('a=setup', 'a=x\r a=setup'));
    refused(offer.replace('a=mid:0\r\n', 'a=mid:0\r\n\r\n'));
  });

  it('never makes the reader throw anything else, whatever is changed in it', () => {
    const edits = fc.array(
      fc.record({
        at: fc.nat(offer.length),
        drop: fc.nat(40),
        text: fc.string({ unit: 'binary', maxLength: 30 }),
      }),
      { minLength: 1, maxLength: 6 },
    );
    fc.assert(
      fc.property(edits, fc.constantFrom('offer' as const, 'answer' as const), (changes, type) => {
        let sdp = offer;
        for (const { at, drop, text } of changes) sdp = sdp.slice(0, at) + text + sdp.slice(at + drop);
        let description;
        try {
          description = parseDescription(sdp, type);
        } catch (error) {
          assert.ok(badSdp(error), String(error));
          return;
        }
        const again = parseDescription(formatDescription(description), type);
        assert.deepEqual(again, { ...description, candidates: [] });
      }),
      { seed: 20_261, numRuns: 3000 },
    );
  });

  it('keeps one fingerprint alone even when lines are shuffled and repeated', () => {
    const pool = [...offer.split('\r\n').slice(1, -1), fingerprintLine.replace('sha-256 00', 'sha-256 AA')];
    fc.assert(
      fc.property(fc.array(fc.nat(pool.length - 1), { maxLength: 40 }), (picks) => {
        const lines = picks.map((pick) => pool[pick] ?? '');
        const count = lines.filter((line) => line.startsWith('a=fingerprint')).length;
        let accepted = true;
        try {
          parseDescription(['v=0', ...lines, ''].join('\r\n'), 'offer');
        } catch (error) {
          assert.ok(badSdp(error));
          accepted = false;
        }
        assert.ok(!accepted || count === 1);
      }),
      { seed: 20_262, numRuns: 2000 },
    );
  });
});

describe('a candidate', () => {
  it('of any UDP kind is read and written without extensions', () => {
    const line =
      'candidate:842163049 1 udp 1677729535 198.51.100.4 46154 typ srflx raddr 192.0.2.7 rport 50000 generation 0 ufrag ab network-cost 999';
    const candidate = parseCandidate(line);
    assert.ok(candidate);
    assert.equal(
      formatCandidate(candidate),
      'candidate:842163049 1 UDP 1677729535 198.51.100.4 46154 typ srflx raddr 192.0.2.7 rport 50000',
    );
    assert.deepEqual(parseCandidate(formatCandidate(candidate)), candidate);
    assert.deepEqual(parseCandidate(`a=${formatCandidate(candidate)}`), candidate);
  });

  it('over TCP, of another component, or out of range is dropped', () => {
    for (const line of [
      '',
      'candidate:',
      'candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype active',
      'candidate:1 2 udp 1 127.0.0.1 9 typ host',
      'candidate:1 1 udp 4294967296 127.0.0.1 9 typ host',
      'candidate:1 1 udp 1 127.0.0.1 0 typ host',
      'candidate:1 1 udp 1 127.0.0.1 65536 typ host',
      'candidate:1 1 udp 1 127.0.0.256 9 typ host',
      'candidate:1 1 udp 1 127.1 9 typ host',
      'candidate:1 1 udp 1 example.com 9 typ host',
      'candidate:1 1 udp 1 metadata.internal 9 typ host',
      'candidate:1 1 udp 1 fe80::1%eth0 9 typ host',
      'candidate:1 1 udp 1 127.0.0.1 9 typ magic',
      'candidate:1 1 udp 1 127.0.0.1 9 typ host\r\na=setup:active',
      `candidate:1 1 udp 1 127.0.0.1 9 typ host x ${'y'.repeat(limits.maxCandidateBytes)}`,
    ])
      assert.equal(parseCandidate(line), null, line.slice(0, 80));
  });

  it('with a strange related address keeps its own', () => {
    const candidate = parseCandidate('candidate:1 1 udp 1 127.0.0.1 9 typ relay raddr evil.example rport 1');
    assert.ok(candidate);
    assert.equal(candidate.related, undefined);
  });

  it('never makes the reader throw, and what it accepts survives a round trip', () => {
    const piece = fc.oneof(
      fc.constantFrom(
        'candidate:1',
        '1',
        'udp',
        'UDP',
        '2113937151',
        '127.0.0.1',
        '::1',
        '5000',
        'typ',
        'host',
        'raddr',
        'rport',
      ),
      fc.string({ maxLength: 12 }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 14 }), (pieces) => {
        const candidate = parseCandidate(pieces.join(' '));
        if (candidate) assert.deepEqual(parseCandidate(formatCandidate(candidate)), candidate);
      }),
      { seed: 20_263, numRuns: 3000 },
    );
  });

  it('tells IP addresses from names and loopback from the rest', () => {
    for (const address of [
      '127.0.0.1',
      '0.0.0.0',
      '::',
      '::1',
      'fd00::2',
      '1:2:3:4:5:6:7:8',
      '::ffff:192.0.2.1',
      '1::',
    ])
      assert.ok(isIpAddress(address), address);
    for (const address of [
      '',
      '1',
      '1.2.3',
      '1.2.3.4.5',
      '01.2.3.4',
      ':',
      ':::',
      '1:2',
      '1::2::3',
      '12345::',
      '1:2:3:4:5:6:7:8:9',
      '1:2:3:4:5:6:7::8',
      '::1.2.3',
      'a.local',
      'g::',
    ])
      assert.ok(!isIpAddress(address), address);
    assert.ok(isLoopback('127.0.0.1') && isLoopback('127.8.8.8') && isLoopback('::1'));
    assert.ok(!isLoopback('192.0.2.2') && !isLoopback('127.evil.local'));
  });
});

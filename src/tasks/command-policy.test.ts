import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { CommandPolicy } from './command-policy.ts';
import { checkCommand, parseCommandPolicy } from './command-policy.ts';

function allows(policy: CommandPolicy, command: string): boolean {
  try {
    checkCommand(policy, command);
    return true;
  } catch (thrown) {
    assert.ok(thrown instanceof Error && 'code' in thrown && thrown.code === 'command_refused');
    return false;
  }
}

describe('task_commands', () => {
  test('is any when nobody says, and none runs nothing', () => {
    assert.equal(parseCommandPolicy(undefined), 'any');
    assert.equal(parseCommandPolicy(['none']), 'none');
    assert.equal(allows('any', 'rm -r /; echo'), true);
    assert.equal(allows('none', 'true'), false);
    assert.equal(allows([], 'true'), false);
  });

  test('allows a line as it stands, and nothing near it', () => {
    const policy = parseCommandPolicy(['make all && make test']);
    assert.equal(allows(policy, 'make all && make test'), true);
    for (const command of [
      'make all',
      ' make all && make test',
      'make all && make test ',
      'make all && make test x',
    ])
      assert.equal(allows(policy, command), false, command);
  });

  test('allows plain words behind a prefix', () => {
    const policy = parseCommandPolicy('git log *');
    for (const command of ['git log --oneline', 'git log -n 5 a/b.ts', 'git log --since=2026-01-01 ärger'])
      assert.equal(allows(policy, command), true, command);
    for (const command of ['git log', 'git log ', 'git logs', 'git', 'git log *', 'xgit log a'])
      assert.equal(allows(policy, command), false, command);
  });

  test('refuses everything behind a prefix that means something to a shell', () => {
    const policy = parseCommandPolicy(['git log *']);
    const shell = ';&|<>()$`"\'\\*?[]#~!{}^\n\r\t\0'.split('');
    const signs = [...shell, '  ', '\u00a0', '\u2003', '\u001b', '\u202e', '\u{1f600}'];
    for (const sign of signs)
      for (const rest of [sign, `a${sign}b`, `a ${sign}`, `${sign} a`])
        assert.equal(allows(policy, `git log ${rest}`), false, JSON.stringify(rest));
  });

  test('refuses entries that would allow more than they say', () => {
    for (const entry of ['*', '', '  ', ' *', 'echo "a *', "sh -c 'x *", 'a; b *', 'a\n *', 'cat $HOME *'])
      assert.throws(() => parseCommandPolicy([entry]), { code: 'bad_config' }, JSON.stringify(entry));
    assert.throws(() => parseCommandPolicy(['any', 'true']), { code: 'bad_config' });
  });
});

/** Texts of which two belong together, for measuring whether a space of vectors finds the other one. */

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export interface TextPair {
  readonly query: string;
  readonly target: string;
}

/** Two sentences each about one thing, by different words as far as it goes. */
const topics: readonly (readonly [string, string])[] = [
  ['Revoke a device that was stolen', 'How do I lock out my stolen laptop and every device that was revoked?'],
  ['Bread rises slowly in a cold kitchen', 'Leave the dough for the bread in the kitchen until it has doubled'],
  ['The train to Vienna leaves at nine', 'Trains between Prague and Vienna run every two hours'],
  ['Backups of the photo library go to the second disk', 'Restore last summer’s photos from the backup'],
  ['The rent is due on the first of the month', 'Our landlord raised the rent by ten percent'],
  ['Tomatoes need six hours of sun', 'When should I plant tomatoes, and how much sun do they want?'],
  ['Rotate the signing keys once a year', 'A key rotation leaves old signatures valid'],
  ['The printer in the hall is out of toner', 'Order toner for both printers'],
  ['Memory usage of the server grows overnight', 'Find the memory leak in the server process'],
  ['Whales sing to each other across oceans', 'The song of a whale carries for hundreds of miles through the ocean'],
  ['The battery of the bicycle lasts forty miles', 'Charge an electric bicycle’s battery before winter'],
  ['Invoices are sent by email every Friday', 'This invoice was not paid; send a reminder email'],
  ['Glaciers in the Alps are melting', 'How fast does a glacier melt in a warm summer?'],
  ['Postgres refuses connections after the upgrade', 'Upgrading Postgres from 14 to 16 without downtime'],
  ['The choir rehearses in the old church', 'Rehearsals of the choir move to Tuesday'],
  ['Coffee tastes bitter when the water is too hot', 'At which water temperature should coffee be brewed?'],
  ['Flights over the Atlantic were cancelled by the storm', 'A storm grounds all flights from Dublin'],
  ['The dentist recommends a new crown', 'My dentist says the tooth needs a crown by spring'],
  ['Certificates expire next week', 'Renew the TLS certificate before it expires'],
  ['The chess club meets in the library', 'Openings every chess player at the club should know'],
  ['Goats climb trees for argan fruit', 'In Morocco a goat may stand in a tree'],
  ['A volcano erupted on Iceland', 'Icelandic volcanoes and how an eruption is predicted'],
  ['The violin needs new strings', 'How often are the strings of a violin changed?'],
  ['Taxes for the self-employed are due in May', 'Which taxes does a self-employed translator pay?'],
  ['Bees dance to tell where flowers are', 'The dance of the honey bee points to the flowers'],
  ['The roof leaks above the kitchen', 'Who repairs a leaking roof before the rain?'],
  ['Video calls stutter on the train', 'Why does the video freeze during a call?'],
  ['The museum is closed on Mondays', 'Tickets for the museum, and when it is closed'],
  ['Queue workers retry a failed job', 'A job that fails five times leaves the queue'],
  ['Translate the manual into Spanish', 'The Spanish translation of this manual has mistakes'],
  ['The vaccine protects for ten years', 'Vaccines against tetanus need a booster after ten years'],
  ['Snow closed the mountain pass', 'Is the pass over the mountains open in snow?'],
  ['Compress images before uploading them', 'Uploaded images are compressed to save space'],
  ['The goalkeeper saved a penalty', 'Penalties decide the final, and the goalkeeper knows it'],
  ['Rust catches data races at compile time', 'What the Rust compiler says of a data race'],
  ['The fridge hums all night', 'A humming fridge keeps me awake'],
  ['Whisky is stored in oak barrels', 'How long does whisky stay in the barrel?'],
  ['Dashboards show the temperature of each room', 'Set the room temperature from the dashboard'],
  ['A firewall blocks the port of the database', 'Open a port in the firewall for ssh'],
  ['The novel is set in Lisbon', 'A novelist walks through Lisbon at night'],
];

export function sameTopic(): readonly TextPair[] {
  return topics.map(([target, query]) => ({ query, target }));
}

/** A word left out, two that changed places, and a polite frame around all. */
export function nearDuplicates(): readonly TextPair[] {
  return topics.map(([target], n) => {
    const words = target.split(' ');
    const at = n % (words.length - 1);
    words.splice(at, 2, ...words.slice(at, at + 2).toReversed());
    words.splice((n * 3) % words.length, 1);
    return { query: `Please note: ${words.join(' ')}!`, target };
  });
}

/** Each longer word with two letters swapped, one doubled or one left out, in turn. */
export function typos(): readonly TextPair[] {
  return topics.map(([target], n) => ({
    query: target.replace(/\p{L}{5,}/gu, (word, at: number) => misspelt(word, n + at)),
    target,
  }));
}

function misspelt(word: string, seed: number): string {
  const at = 1 + (seed % (word.length - 3));
  const [a = '', b = ''] = [word[at], word[at + 1]];
  const wrong = [b + a, a + a + b, b][seed % 3] ?? '';
  return word.slice(0, at) + wrong + word.slice(at + 2);
}

/** What installed packages say of themselves in a line, with their README without that line. */
export function packageReadmes(): readonly TextPair[] {
  const root = join(import.meta.dirname, '../../node_modules');
  const folders = readdirSync(root).flatMap((name) => {
    if (name.startsWith('.') || name === '@cocoon-mesh') return [];
    return name.startsWith('@') ? readdirSync(join(root, name)).map((each) => join(name, each)) : [name];
  });
  return folders.flatMap((folder) => {
    const files = readdirSync(join(root, folder));
    const readme = files.find((file) => /^readme(\.md|\.markdown)?$/i.test(file));
    if (readme === undefined || !files.includes('package.json')) return [];
    const { description } = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8')) as {
      description?: string;
    };
    if (description === undefined || description === '') return [];
    const text = readFileSync(join(root, folder, readme), 'utf8');
    return [{ query: description, target: text.replaceAll(description, ' ') }];
  });
}

/** The share of queries whose own target is the nearest of all, by the dot product. */
export function recallAt1(
  queries: readonly Float32Array[],
  targets: readonly Float32Array[],
): number {
  const found = queries.filter((query, n) => {
    const likeness = targets.map((target) => target.reduce((sum, value, i) => sum + value * (query[i] ?? 0), 0));
    return likeness.every((value, other) => other === n || value < (likeness[n] ?? 0));
  });
  return found.length / queries.length;
}

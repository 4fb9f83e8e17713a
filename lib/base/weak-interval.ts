/**
 * Does something for `target` again and again, for as long as somebody has it: neither it nor the process is kept for that.
 * @param work is given the target. One that knows it by itself would keep it, and so would one made where another function knows it
 */
export function weakInterval<T extends object>(target: T, ms: number, work: (target: T) => void): NodeJS.Timeout {
  const weak = new WeakRef(target);
  const timer = setInterval(() => {
    const held = weak.deref();
    if (held === undefined) clearInterval(timer);
    else work(held);
  }, ms);
  return timer.unref();
}

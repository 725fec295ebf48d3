/** Small controls that everything else is made of. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { close } from "../state/ui";
import { Icon, type IconName } from "./icons";
import { Notes } from "./Notes";

interface IconButtonProps {
  icon: IconName;
  label: string;
  onClick: () => void;
  isPressed?: boolean;
  isDisabled?: boolean;
  isDanger?: boolean;
  hint?: string;
}

/** A button of an icon alone; `hint` is its key, shown with the label when the pointer rests. */
export function IconButton({ icon, label, onClick, isPressed, isDisabled, isDanger, hint }: IconButtonProps) {
  return (
    <button
      type="button"
      class="icon-button"
      aria-label={label}
      aria-pressed={isPressed}
      title={hint ? `${label} (${hint})` : label}
      disabled={isDisabled}
      data-danger={isDanger || undefined}
      onClick={onClick}
    >
      <Icon name={icon} filled={isPressed === true && icon === "star"} />
    </button>
  );
}

interface SegmentsProps<T extends string> {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  choose: (value: T) => void;
}

/** One of a few, all in view. */
export function Segments<T extends string>({ label, value, options, choose }: SegmentsProps<T>) {
  return (
    <div class="segments" role="group" aria-label={label}>
      {options.map(([option, text]) => (
        <button type="button" key={option} aria-pressed={option === value} onClick={() => choose(option)}>
          {text}
        </button>
      ))}
    </div>
  );
}

interface ModalProps {
  title: string;
  children: ComponentChildren;
  size?: "small" | "middle" | "full";
  onKeyDown?: (event: KeyboardEvent) => void;
}

/** A dialog above the page. The browser keeps the focus inside and gives it back. */
export function Modal({ title, children, size = "middle", onKeyDown }: ModalProps) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    ref.current?.showModal();
    return () => before instanceof HTMLElement && before.isConnected && before.focus();
  }, []);
  return (
    <dialog
      ref={ref}
      class="modal"
      data-size={size}
      aria-label={title}
      onKeyDown={onKeyDown}
      onCancel={(event) => (event.preventDefault(), close())}
      onClick={(event) => event.target === ref.current && close()}
    >
      <div class="modal-body">
        <header class="modal-head">
          <h2>{title}</h2>
          <IconButton icon="close" label="Close" hint="Esc" onClick={close} />
        </header>
        {children}
      </div>
      <Notes />
    </dialog>
  );
}

export function Progress({ share, label }: { share: number | null; label: string }) {
  const percent = share === null ? null : Math.round(100 * share);
  return (
    <div
      class="progress"
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(percent === null ? {} : { "aria-valuenow": percent })}
      data-waiting={percent === null || undefined}
    >
      <div style={{ width: percent === null ? "30%" : `${percent}%` }} />
    </div>
  );
}

export function Keys({ children }: { children: string }) {
  return (
    <span class="keys">
      {children.split("+").map((key) => (
        <kbd key={key}>{key === "plus" ? "+" : key}</kbd>
      ))}
    </span>
  );
}
